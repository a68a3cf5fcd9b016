//! Where a scheduler listens, as people write it.

use std::fmt;
use std::str::FromStr;

/// A scheduler's address: `host:port`. A leading `http://` and a trailing slash are accepted and dropped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

/// Text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a scheduler's address: {why}; write host:port, for instance 127.0.0.1:7077")]
pub struct BadAddress {
    text: String,
    why: &'static str,
}

impl Address {
    /// `host:port`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = |why| BadAddress { text: text.chars().take(128).collect(), why };
        let trimmed = text.trim();
        if trimmed.starts_with("https://") {
            return Err(bad("encrypted connections are not supported"));
        }
        let plain = trimmed.strip_prefix("http://").unwrap_or(trimmed).trim_end_matches('/');
        let Some((host, port)) = plain.rsplit_once(':') else { return Err(bad("the port is missing")) };
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        // An IPv6 address has colons of its own; without brackets nobody could say where the port begins.
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.contains(':') && !bracketed {
            return Err(bad("an IPv6 host needs brackets, as in [::1]:7077"));
        }
        if !bracketed && !host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_')) {
            return Err(bad("the host has characters that no host name has"));
        }
        match port.parse::<u16>() {
            Ok(0) | Err(_) => Err(bad("the port is not a number from 1 to 65535")),
            Ok(_) => {
                let address = Self(plain.to_ascii_lowercase());
                tonic::transport::Endpoint::from_shared(address.url()).map_err(|_| bad("it is not part of a URL"))?;
                Ok(address)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expect) in [
            ("127.0.0.1:7077", Ok("127.0.0.1:7077")),
            (" http://Node-1.example:80/ ", Ok("node-1.example:80")),
            ("[::1]:7077", Ok("[::1]:7077")),
            ("::1:7077", Err("brackets")),
            ("localhost", Err("port is missing")),
            (":7077", Err("host is missing")),
            ("localhost:0", Err("1 to 65535")),
            ("localhost:70770", Err("1 to 65535")),
            ("local host:7077", Err("characters")),
            ("a/b:7077", Err("characters")),
            ("https://localhost:7077", Err("encrypted")),
            ("[x y]:7077", Err("not part of a URL")),
        ] {
            match (text.parse::<Address>(), expect) {
                (Ok(address), Ok(expect)) => assert_eq!(address.as_str(), expect),
                (Err(error), Err(part)) => {
                    let said = error.to_string();
                    assert!(said.contains(part) && said.contains("host:port"), "{text}: {said}");
                }
                (got, _) => panic!("{text}: {got:?}, expected {expect:?}"),
            }
        }
    }
}
