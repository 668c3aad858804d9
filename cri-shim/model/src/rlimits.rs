//! Resource limits of processes as people write them, `nofile=1024:524288` (docker's `--ulimit`), and as the
//! kernel and the OCI spec number and name them. Which limits a container gets is configuration.

use crate::plan::Rlimit;
use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};

/// Names, their number in the kernel (asm-generic/resource.h), and their word in the OCI spec.
const NAMES: [(&str, PosixRlimitType); 16] = [
    ("cpu", PosixRlimitType::RlimitCpu),
    ("fsize", PosixRlimitType::RlimitFsize),
    ("data", PosixRlimitType::RlimitData),
    ("stack", PosixRlimitType::RlimitStack),
    ("core", PosixRlimitType::RlimitCore),
    ("rss", PosixRlimitType::RlimitRss),
    ("nproc", PosixRlimitType::RlimitNproc),
    ("nofile", PosixRlimitType::RlimitNofile),
    ("memlock", PosixRlimitType::RlimitMemlock),
    ("as", PosixRlimitType::RlimitAs),
    ("locks", PosixRlimitType::RlimitLocks),
    ("sigpending", PosixRlimitType::RlimitSigpending),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue),
    ("nice", PosixRlimitType::RlimitNice),
    ("rtprio", PosixRlimitType::RlimitRtprio),
    ("rttime", PosixRlimitType::RlimitRttime),
];

/// Reads `NAME=SOFT:HARD` or `NAME=BOTH`; a number, `unlimited` or `-1`. The error is a sentence.
pub fn parse(text: &str) -> Result<Rlimit, String> {
    let refused = || {
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        format!(
            "found \"{}\", allowed is NAME=SOFT:HARD or NAME=BOTH, each a number or unlimited, and the \
             soft one not above the hard one; names are {}",
            text.escape_default(),
            names.join(", ")
        )
    };
    let (name, value) = text.split_once('=').ok_or_else(refused)?;
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let number = |text: &str| match text {
        "unlimited" | "-1" => Some(u64::MAX),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    };
    let resource = NAMES.iter().position(|(known, _)| *known == name);
    let resource = resource.and_then(|place| u32::try_from(place).ok()).ok_or_else(refused)?;
    let (soft, hard) = number(soft).zip(number(hard)).ok_or_else(refused)?;
    if soft > hard { Err(refused()) } else { Ok(Rlimit { resource, soft, hard }) }
}

/// A limit as the OCI spec shows it.
pub fn oci(limit: &Rlimit) -> Option<PosixRlimit> {
    let (_, typ) = NAMES.get(usize::try_from(limit.resource).ok()?)?;
    PosixRlimitBuilder::default().typ(*typ).soft(limit.soft).hard(limit.hard).build().ok()
}

#[cfg(test)]
mod tests {
    use super::{oci, parse};
    use crate::plan::Rlimit;

    #[test]
    fn limits_are_read_as_people_write_them() {
        let limit = |resource, soft, hard| Ok(Rlimit { resource, soft, hard });
        assert_eq!(parse("nofile=1024:524288"), limit(7, 1_024, 524_288));
        assert_eq!(parse("nproc=unlimited"), limit(6, u64::MAX, u64::MAX));
        assert_eq!(parse("core=0:-1"), limit(4, 0, u64::MAX));
        for bad in [
            "",
            "nofile",
            "nofile=",
            "files=1",
            "nofile=2:1",
            "nofile=+1",
            "nofile=1:2:3",
            "NOFILE=1",
        ] {
            assert!(parse(bad).unwrap_err().contains("allowed is"), "{bad}");
        }
    }

    #[test]
    fn the_spec_shows_the_kernels_number_by_its_name() {
        let shown = oci(&parse("rttime=5").unwrap()).unwrap();
        assert_eq!((shown.typ().to_string().as_str(), shown.soft()), ("RLIMIT_RTTIME", 5));
    }
}
