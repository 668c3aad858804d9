//! `WWW-Authenticate` (RFC 9110 §11, distribution's token specification): what a registry asks for.
//! Pure; text of strangers, bounded by the HTTP client's header limit.

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token of this service.
    Bearer { realm: String, service: String, scope: String },
}

/// The strongest challenge of a header: a token before a password.
pub fn parse(header: &str) -> Option<Challenge> {
    let bearer = find_scheme(header, "bearer").map(parameters);
    if let Some(fields) = bearer {
        let get =
            |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let realm = get("realm")
            .filter(|realm| realm.starts_with("http://") || realm.starts_with("https://"))?;
        return Some(Challenge::Bearer {
            realm,
            service: get("service").unwrap_or_default(),
            scope: get("scope").unwrap_or_default(),
        });
    }
    find_scheme(header, "basic").map(|_| Challenge::Basic)
}

/// What follows a scheme's name.
fn find_scheme<'a>(header: &'a str, scheme: &str) -> Option<&'a str> {
    let lower = header.to_ascii_lowercase();
    let at = lower.match_indices(scheme).map(|(at, _)| at).find(|at| {
        let before = header.get(..*at).unwrap_or_default().trim_end();
        let after = header.get(at.saturating_add(scheme.len())..).unwrap_or_default();
        (before.is_empty() || before.ends_with(',')) && (after.is_empty() || after.starts_with(' '))
    })?;
    header.get(at.saturating_add(scheme.len())..).map(str::trim_start)
}

/// `key="value", key=value` up to the first thing that is no parameter.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim().trim_start_matches(',').trim();
        if key.is_empty() || key.contains([' ', ',', '"']) {
            break;
        }
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => match quoted.split_once('"') {
                Some((value, next)) => (value, next),
                None => break,
            },
            None => after.split_at(after.find([',', ' ']).unwrap_or(after.len())),
        };
        found.push((key.to_ascii_lowercase(), value.to_owned()));
        rest = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Challenge, parse};
    use proptest::prelude::proptest;

    #[test]
    fn the_usual_forms_parse() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
        assert_eq!(
            parse(header),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: "registry.docker.io".into(),
                scope: "repository:a/b:pull".into()
            })
        );
        assert_eq!(parse(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert!(matches!(
            parse(r#"Basic realm="x", Bearer realm="https://t/""#),
            Some(Challenge::Bearer { .. })
        ));
    }

    #[test]
    fn a_realm_that_is_no_web_address_is_no_challenge() {
        assert_eq!(parse(r#"Bearer realm="file:///etc/passwd""#), None);
        assert_eq!(parse("Digest x"), None);
    }

    proptest! {
        #[test]
        fn hostile_headers_never_break_the_parser(header in ".{0,200}") {
            let _either = parse(&header);
        }
    }
}
