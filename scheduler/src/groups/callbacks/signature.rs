//! How a receiver knows that a callback is Muster's: HMAC-SHA-256 (RFC 2104) over the time of the try and the body, with a secret that
//! both know.

use std::fmt;
use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A secret that is shorter than this can be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// What callbacks are signed with. Never shown.
#[derive(Clone)]
pub struct CallbackSecret(Hmac<Sha256>);

impl CallbackSecret {
    /// Of these bytes.
    ///
    /// # Errors
    /// If they are too few, with what to do about it.
    pub fn new(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(format!(
                "the secret has {} bytes, and needs at least {SECRET_BYTES_MIN}: take a longer one",
                secret.len()
            ));
        }
        Hmac::new_from_slice(secret).map(Self).map_err(|error| error.to_string())
    }

    /// The signature of a body that is sent at this time, in seconds since the Unix epoch.
    pub(super) fn sign(&self, timestamp: &str, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body);
        let mut text = "v1=".to_owned();
        for byte in mac.finalize().into_bytes() {
            // A String takes everything.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl fmt::Debug for CallbackSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CallbackSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_standards() {
        let secret = CallbackSecret::new(b"0123456789abcdef").unwrap();
        // printf '1800000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "v1=d3e17924cac4a72ca2ee9e5700df170fdb5733eaf69ecd909fb0c18a962b03a5";
        assert_eq!(secret.sign("1800000000", br#"{"a":1}"#), expected);
        assert!(!format!("{secret:?}").contains("0123"));
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(CallbackSecret::new(b"0123456789abcde").unwrap_err().contains("at least 16"));
    }
}
