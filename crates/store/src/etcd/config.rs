use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use grpc::Target;
use rustls::ClientConfig;

/// Where etcd is, and how to deal with it.
#[derive(Clone)]
pub struct EtcdConfig {
    /// Its members; any of them will do.
    pub endpoints: Vec<Endpoint>,
    /// Whom to trust and who to be, for endpoints with TLS. It must offer HTTP/2.
    pub tls: Option<Arc<ClientConfig>>,
    /// What all keys begin with; it ends with a slash.
    pub prefix: String,
    /// How long a start waits for an etcd that does not answer.
    pub patience: Duration,
    /// How long a read or a write may take before it is given up.
    pub limit: Duration,
    /// How often old revisions are given up, by whichever server comes first; they live twice as long at most.
    pub compact_every: Option<Duration>,
}

impl EtcdConfig {
    /// The usual settings.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            tls: None,
            prefix: "/registry/".to_owned(),
            patience: Duration::from_secs(10),
            limit: Duration::from_secs(8),
            compact_every: Some(Duration::from_secs(300)),
        }
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        let target = |endpoint: &Endpoint| Target::Tcp {
            host: endpoint.host.clone(),
            port: endpoint.port,
            tls: if endpoint.secure { self.tls.clone() } else { None },
        };
        self.endpoints.iter().map(target).collect()
    }
}

/// One member's address, as a URL: `https://10.0.0.1:2379`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether TLS is spoken there.
    pub secure: bool,
}

/// A text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no etcd endpoint; write it as https://host:2379 or http://host:2379")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fault = || EndpointError(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(fault)?;
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(fault()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.ends_with(']')) => {
                (host, port.parse().map_err(|_| fault())?)
            }
            _ => (rest, 2379),
        };
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
        if host.is_empty() || !host.chars().all(good) {
            return Err(fault());
        }
        Ok(Self { host: host.to_owned(), port, secure })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls() {
        for good in ["https://a:2379", "http://10.0.0.1:1", "https://[::1]:2379", "http://etcd-0.etcd:2379"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        assert_eq!("https://a/".parse::<Endpoint>().unwrap().to_string(), "https://a:2379");
        for bad in ["", "a:2379", "ftp://a:1", "https://", "https://a:99999", "https://a/b", "http://a b:1"] {
            assert_eq!(bad.parse::<Endpoint>(), Err(EndpointError(bad.to_owned())), "{bad}");
        }
    }
}
