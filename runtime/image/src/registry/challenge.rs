//! What a registry asks for before it answers.
//!
//! Source: RFC 9110 §11.6.1; distribution's "Token Authentication Specification".

use http_auth::parser::ChallengeParser;

/// A challenge of the scheme Bearer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
}

impl Bearer {
    /// Finds it in a `WWW-Authenticate` header; `None` where there is none, or one without a realm.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let challenge = ChallengeParser::new(header).flatten().find(|it| it.scheme.eq_ignore_ascii_case("bearer"))?;
        let value = |name: &str| {
            let found = challenge.params.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        Some(Self { realm: value("realm")?, service: value("service") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_challenges_registries_send() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        let cases = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (r#"bearer REALM = "https://a/x,y" , error="invalid_token""#, bearer("https://a/x,y", None)),
            (r#"Basic realm="x", Bearer realm="https://b",service=s"#, bearer("https://b", Some("s"))),
            (r#"Bearer realm="https://b", Basic realm="x""#, bearer("https://b", None)),
            (r#"Bearer realm="a\"b""#, bearer("a\"b", None)),
            (r#"Basic realm="x""#, None),
            (r#"Bearer service="x""#, None),
            (r#"Bearer realm="x"#, None),
            ("Bearer ", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(Bearer::parse(header), expected, "{header}");
        }
    }
}
