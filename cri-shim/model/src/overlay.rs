//! A container's root as overlayfs takes it: folders of layers and of the writable layer to the options
//! of one mount, in the order they are set. Relies on absolute paths of our own; looks at no file and
//! mounts nothing.

use crate::kind::Refused;
use crate::limits;
use std::path::{Path, PathBuf};

/// Where a container's changes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writable {
    /// Becomes `upperdir`.
    pub upper: PathBuf,
    /// Becomes `workdir`: empty, on the same file system as `upper`.
    pub work: PathBuf,
}

/// Options of the mount: key and value, each set with `fsconfig(2)` in this order.
pub type Options = Vec<(&'static str, String)>;

/// The option that adds one layer; its value is the layer's folder.
pub const LAYER: &str = "lowerdir+";

/// Options for a root of these layers, topmost first. Without a writable layer the root is read-only,
/// as an image volume is.
///
/// `lowerdir+` (Linux 6.5) takes one layer each, so their number is not bounded by a page, and gives
/// no character a meaning. `redirect_dir`, `metacopy` and `index` are said explicitly: their defaults
/// are module parameters of the host, and a layer must not profit from them.
pub fn options(layers: &[PathBuf], writable: Option<&Writable>) -> Result<Options, Refused> {
    if layers.is_empty() || layers.len() > limits::OVERLAY_LAYERS {
        let allowed = format!("1 to {}", limits::OVERLAY_LAYERS);
        return Err(Refused::new("number of layers", layers.len().to_string(), allowed));
    }
    let mut options: Options = vec![("source", "overlay".to_owned())];
    for layer in layers {
        options.push((LAYER, value("layer folder", layer)?));
    }
    if let Some(Writable { upper, work }) = writable {
        options.push(("upperdir", value("upper folder", upper)?));
        options.push(("workdir", value("work folder", work)?));
    } else if layers.len() == 1 {
        // Read-only overlayfs wants two layers; one alone is bind-mounted by the caller.
        let allowed = "at least 2 without a writable layer";
        return Err(Refused::new("number of layers", "1", allowed));
    }
    for key in ["redirect_dir", "metacopy", "index"] {
        options.push((key, "off".to_owned()));
    }
    Ok(options)
}

fn value(field: &str, path: &Path) -> Result<String, Refused> {
    let allowed =
        || format!("an absolute path in UTF-8 of up to {} bytes", limits::MOUNT_OPTION_BYTES);
    let text = path.to_str().filter(|text| {
        path.is_absolute() && text.len() <= limits::MOUNT_OPTION_BYTES && !text.contains('\0')
    });
    text.map(str::to_owned).ok_or_else(|| Refused::new(field, path.to_string_lossy(), allowed()))
}

#[cfg(test)]
mod tests {
    use super::{Writable, options};
    use std::path::PathBuf;

    fn layers(count: usize) -> Vec<PathBuf> {
        (0..count).map(|at| PathBuf::from(format!("/r/layers/{at}/fs"))).collect()
    }

    fn writable() -> Writable {
        Writable { upper: "/r/writable/c/upper".into(), work: "/r/writable/c/work".into() }
    }

    #[test]
    fn layers_keep_their_order_and_the_writable_one_follows() {
        let text: Vec<_> = options(&layers(2), Some(&writable()))
            .unwrap()
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            text.join(" "),
            "source=overlay lowerdir+=/r/layers/0/fs lowerdir+=/r/layers/1/fs \
             upperdir=/r/writable/c/upper workdir=/r/writable/c/work redirect_dir=off metacopy=off index=off"
        );
    }

    #[test]
    fn a_read_only_root_has_no_upper_and_needs_two_layers() {
        let read_only = options(&layers(2), None).unwrap();
        assert!(read_only.iter().all(|(key, _)| *key != "upperdir"));
        assert!(options(&layers(1), None).is_err());
    }

    #[test]
    fn bounds_and_strange_paths_are_refused() {
        assert!(options(&layers(500), Some(&writable())).is_ok());
        for bad in [vec![], layers(501), vec!["relative".into()], vec!["/x".repeat(200).into()]] {
            assert!(options(&bad, Some(&writable())).is_err(), "{} layers", bad.len());
        }
    }
}
