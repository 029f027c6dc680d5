//! The store's URL.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error as _};

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A folder of this machine.
    File(PathBuf),
    /// A folder of an FTP server.
    Ftp(FtpUrl),
}

/// The parts of an `ftp://` or `ftps://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FtpUrl {
    /// Explicit TLS (RFC 4217).
    pub tls: bool,
    /// Host name or address.
    pub host: String,
    /// Control port, 21 where none is given.
    pub port: u16,
    /// `anonymous` where none is given.
    pub user: String,
    /// The folder that is the store's root, as the FTP server names it, without a slash at its end.
    pub root: String,
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Ftp(ftp) => {
                let scheme = if ftp.tls { "ftps" } else { "ftp" };
                write!(f, "{scheme}://{}@{}:{}{}", ftp.user, ftp.host, ftp.port, ftp.root)
            }
        }
    }
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err("a file: store URL needs a path, as in 'file:data/functionstore'".into());
            }
            return Ok(Self::File(path.into()));
        }
        let url = url::Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        let tls = match url.scheme() {
            "ftp" => false,
            "ftps" => true,
            other => {
                return Err(format!("scheme '{other}' is not known: it must be 'ftp://', 'ftps://' or 'file:'"));
            }
        };
        if url.password().is_some() {
            return Err("a password does not belong in the URL: name 'password_file' or 'password_env'".into());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("the URL has no host")?;
        let decode = |part: &str| -> Result<String, String> {
            let text = percent_decode(part).ok_or_else(|| format!("'{part}' is not percent-encoded UTF-8"))?;
            if text.chars().any(char::is_control) {
                return Err("the URL holds control characters".into());
            }
            Ok(text)
        };
        let user = decode(url.username())?;
        Ok(Self::Ftp(FtpUrl {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(21),
            user: if user.is_empty() { "anonymous".into() } else { user },
            root: decode(url.path())?.trim_end_matches('/').to_owned(),
        }))
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
