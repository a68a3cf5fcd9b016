//! What an `etcd://` URL says.

use std::time::Duration;

use crate::Error;

/// How long a call may take in all. An etcd cluster elects a new leader within some seconds; its own limit for a request
/// is 7 s by default.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long opening a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where etcd is, and how it is spoken to.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// `http://host:port` of each member.
    pub endpoints: Vec<String>,
    /// User and password, if etcd asks for them.
    pub user: Option<(String, String)>,
    /// How long a call may take in all.
    pub call_timeout: Duration,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
}

impl std::fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password stays out of logs.
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("call_timeout", &self.call_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

impl EtcdOptions {
    /// The members at `host:port`, with the usual time-outs.
    pub fn new<S: AsRef<str>>(members: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        let endpoints = members.into_iter().map(|member| endpoint(member.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::Fatal("no member of etcd is named: give host:port".to_owned()));
        }
        Ok(Self { endpoints, user: None, call_timeout: CALL_TIMEOUT, connect_timeout: CONNECT_TIMEOUT })
    }

    /// What follows `etcd:` in a URL: `//host:port,host:port[?user=…&password=…&call_timeout_ms=…&connect_timeout_ms=…]`.
    pub fn parse(rest: &str) -> Result<Self, Error> {
        let rest = rest
            .strip_prefix("//")
            .ok_or_else(|| Error::Fatal("an etcd URL begins with etcd://, then host:port,host:port".to_owned()))?;
        let (members, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = Self::new(members.trim_end_matches('/').split(','))?;
        let (mut user, mut password) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| Error::Fatal(format!("'{pair}' in the etcd URL has no value: write name=value")))?;
            match name {
                "user" => user = Some(percent_decoded(value)?),
                "password" => password = Some(percent_decoded(value)?),
                "call_timeout_ms" => options.call_timeout = milliseconds(name, value)?,
                "connect_timeout_ms" => options.connect_timeout = milliseconds(name, value)?,
                other => {
                    return Err(Error::Fatal(format!(
                        "'{other}' in the etcd URL is unknown: there are user, password, call_timeout_ms and \
                         connect_timeout_ms"
                    )));
                }
            }
        }
        options.user = match (user, password) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user, password)),
            _ => return Err(Error::Fatal("the etcd URL has only one of user and password: give both".to_owned())),
        };
        Ok(options)
    }
}

fn endpoint(member: &str) -> Result<String, Error> {
    let wrong = || Error::Fatal(format!("'{member}' is not a member of etcd: give host:port"));
    let (host, port) = member.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.contains([':', '/', '@', '[', ']']) && !host.contains(char::is_whitespace);
    if host.is_empty() || port == 0 || !(bracketed || plain) {
        return Err(wrong());
    }
    Ok(format!("http://{host}:{port}"))
}

fn milliseconds(name: &str, value: &str) -> Result<Duration, Error> {
    match value.parse() {
        Ok(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err(Error::Fatal(format!("{name}={value} in the etcd URL is not a number of milliseconds above 0"))),
    }
}

fn percent_decoded(text: &str) -> Result<String, Error> {
    let wrong = || Error::Fatal(format!("'{text}' in the etcd URL is not percent-encoded UTF-8"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(wrong);
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).map_err(|_| wrong())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_with_all_they_say() {
        let options = EtcdOptions::parse("//a:1,[::1]:2?user=u&password=p%26%C3%A9&call_timeout_ms=250").unwrap();
        assert_eq!(options.endpoints, ["http://a:1", "http://[::1]:2"]);
        assert_eq!(options.user, Some(("u".to_owned(), "p&é".to_owned())));
        assert_eq!(options.call_timeout, Duration::from_millis(250));
        assert!(!format!("{options:?}").contains("p&é"), "the password is not shown");
    }

    #[test]
    fn bad_urls_say_what_is_wrong() {
        for (url, part) in [
            ("a:1", "etcd://"),
            ("//", "host:port"),
            ("//a", "host:port"),
            ("//a:0", "host:port"),
            ("//a:1,", "host:port"),
            ("//a:1/b:2", "host:port"),
            ("//a:1?x=1", "'x'"),
            ("//a:1?user", "name=value"),
            ("//a:1?user=u", "both"),
            ("//a:1?call_timeout_ms=0", "milliseconds"),
            ("//a:1?user=%zz&password=x", "percent"),
        ] {
            let error = EtcdOptions::parse(url).unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
