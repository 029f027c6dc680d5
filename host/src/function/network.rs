//! Where functions may connect to: hosts by name, and the addresses behind them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A pattern of hosts: `scheme://host[:port]`. The scheme is `http`, `https` or `*`; the host a name, an address, `*`
/// for any, or `*.example.com` for all below that; the port a number or `*`. Without one it is the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    secure: Option<bool>,
    host: Host,
    port: Port,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    /// With the dot.
    Below(String),
    Exactly(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Any,
    Own,
    Exactly(u16),
}

/// The port of a scheme that none is given for.
#[must_use]
pub fn own_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// The host of a request as patterns have it: in lower case, without brackets and without a dot at its end.
#[must_use]
pub fn plain_host(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

impl HostPattern {
    /// Whether a request to that host, as [`plain_host`] gives it, fits.
    #[must_use]
    pub fn fits(&self, secure: bool, host: &str, port: u16) -> bool {
        let host_fits = match &self.host {
            Host::Any => true,
            // No address is below a name.
            Host::Below(name) => {
                host.len() > name.len() && host.ends_with(name.as_str()) && host.parse::<IpAddr>().is_err()
            }
            Host::Exactly(name) => host == name,
        };
        let port_fits = match self.port {
            Port::Any => true,
            Port::Own => port == own_port(secure),
            Port::Exactly(exact) => port == exact,
        };
        host_fits && port_fits && self.secure.is_none_or(|only| only == secure)
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let secure = match scheme {
            "http" => Some(false),
            "https" => Some(true),
            "*" => None,
            _ => return None,
        };
        let (host, port) = match rest.rsplit_once(':') {
            // The colon of an address in brackets is none of a port.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port {
            None => Port::Own,
            Some("*") => Port::Any,
            Some(number) => Port::Exactly(number.parse().ok().filter(|port| *port > 0)?),
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name.len() <= 253
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
                && !name.starts_with('.')
                && !name.ends_with('.')
        };
        let host = match host.strip_prefix('*') {
            Some("") => Host::Any,
            Some(below) => Host::Below(below.strip_prefix('.').filter(|name| is_name(name)).map(|_| below.to_owned())?),
            None => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
                Some(address) => Host::Exactly(address.parse::<Ipv6Addr>().ok()?.to_string()),
                None => Host::Exactly(Some(host).filter(|name| is_name(name))?.to_owned()),
            },
        };
        Some(Self { secure, host, port, text: text.to_owned() })
    }
}

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern of hosts: it must be like 'https://api.example.com', 'https://*.example.com:8443' or \
     'http://*:*', in lower case and without a path"
)]
pub struct HostPatternError(String);

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        Self::parse(text).ok_or_else(|| HostPatternError(text.chars().take(100).collect()))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A network: an address, and how many of its first bits count (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is one of its.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, width: u32| {
            let rest = width.saturating_sub(u32::from(self.bits));
            one.checked_shr(rest).unwrap_or(0) == other.checked_shr(rest).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network: it must be like '10.0.0.0/8', 'fd00::/8' or '127.0.0.1'");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), str::parse).map_err(|_| wrong())?;
        if bits > width { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Whether an address is one of the Internet: not of this machine, its networks, or their special services (IANA's
/// registries of special-purpose addresses; and where clouds tell machines their secrets).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let special = match (a, b, c, d) {
        // This network, loopback, private ones, link-local with 169.254.169.254.
        (0 | 10 | 127, ..) | (172, 16..=31, ..) | (192, 168, ..) | (169, 254, ..)
        // Shared by carriers, protocols' own, for documents, for benchmarks.
        | (100, 64..=127, ..) | (192, 0, 0 | 2, _) | (198, 18..=19, ..) | (198, 51, 100, _) | (203, 0, 113, _)
        // Relays of 6to4, the metadata of a cloud.
        | (192, 88, 99, _) | (168, 63, 129, 16)
        // Multicast, reserved, broadcast.
        | (224.., ..) => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let v4 = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // An address of version 4 in it.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
        // Protocols' own with Teredo, and for documents.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // All that is given out; the rest is loopback, local, multicast, or nobody's.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn patterns_fit_scheme_host_and_port() {
        for (text, secure, host, port) in [
            ("https://api.example.com", true, "api.example.com", 443),
            ("http://api.example.com", false, "api.example.com", 80),
            ("*://api.example.com", false, "api.example.com", 80),
            ("https://*.example.com", true, "a.b.example.com", 443),
            ("https://*:*", true, "192.0.2.1", 8443),
            ("http://[::1]:8080", false, "::1", 8080),
            ("http://127.0.0.1:*", false, "127.0.0.1", 9),
        ] {
            assert!(pattern(text).fits(secure, host, port), "{text}");
        }
        for (text, secure, host, port) in [
            ("https://api.example.com", false, "api.example.com", 443),
            ("https://api.example.com", true, "api.example.com", 8443),
            ("*://api.example.com", false, "api.example.com", 443),
            ("https://*.example.com", true, "example.com", 443),
            ("https://*.example.com", true, "evilexample.com", 443),
            ("https://api.example.com", true, "api.example.com.evil.org", 443),
            ("http://*.0.0.1", false, "127.0.0.1", 80),
        ] {
            assert!(!pattern(text).fits(secure, host, port), "{text}");
        }
        for wrong in [
            "",
            "api.example.com",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://A",
            "https://a:0",
            "https://a:b",
            "https://*a",
            "https://a*",
            "https://[1]",
            "https://.a",
            "https://a b",
        ] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong}");
        }
        assert_eq!((plain_host("API.Example.com."), plain_host("[::1]")), ("api.example.com".into(), "::1".into()));
    }

    #[test]
    fn addresses_that_are_not_the_internets_are_told() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(private.parse().expect("an address")), "{private}");
        }
        for public in ["1.1.1.1", "172.32.0.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
    }

    #[test]
    fn networks_hold_what_begins_like_them() {
        let network = |text: &str| text.parse::<Network>().expect("a network");
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(network("127.0.0.0/8").contains(address("127.1.2.3")));
        assert!(network("127.0.0.0/8").contains(address("::ffff:127.1.2.3")));
        assert!(!network("127.0.0.0/8").contains(address("128.0.0.1")));
        assert!(network("0.0.0.0/0").contains(address("9.9.9.9")) && !network("0.0.0.0/0").contains(address("::1")));
        assert!(network("::1").contains(address("::1")) && !network("::1").contains(address("::2")));
        assert!(network("fd00::/8").contains(address("fdff::1")));
        for wrong in ["", "10.0.0.0/33", "10.0.0", "a/8", "::/129"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
