//! Where a server is, and where a redirect leads.

use crate::Error;
use hyper::Uri;

/// A server: host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place(String);

impl Place {
    /// Reads `host:port`, or a URL of that.
    ///
    /// # Errors
    /// If it can only be reached with encryption, which there is none of yet, or is no address at all.
    pub fn parse(endpoint: &str) -> Result<Self, Error> {
        if endpoint.starts_with("https://") {
            return Err(Error::Misuse(format!("{endpoint}: there is no encryption yet; write host:port")));
        }
        let host = endpoint.trim_start_matches("http://").trim_end_matches('/');
        let parsed = format!("http://{host}/").parse::<Uri>().ok();
        let whole = |uri: &Uri| uri.authority().is_some_and(|all| all.as_str() == host && !host.contains('@'));
        match parsed.filter(|uri| uri.path() == "/" && whole(uri)) {
            Some(_) => Ok(Self(host.into())),
            None => Err(Error::Misuse(format!("{endpoint:?} is no address: write host:port"))),
        }
    }

    pub fn host(&self) -> &str {
        &self.0
    }

    /// The server and the path that a `Location` names, from here.
    pub fn follow(&self, location: &str) -> Option<(Self, String)> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some((self.clone(), location.into()));
        }
        let uri: Uri = location.strip_prefix("http://").map(|_| location.parse())?.ok()?;
        let place = Self::parse(uri.authority()?.as_str()).ok()?;
        Some((place, uri.path_and_query()?.as_str().into()))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for written in ["n1:2379", "http://n1:2379", "http://n1:2379/"] {
            assert_eq!(Place::parse(written).expect("an address").host(), "n1:2379");
        }
        assert_eq!(Place::parse("[::1]:2379").expect("an address").host(), "[::1]:2379");
        for broken in ["", "https://n1:2379", "n1:2379/v1", "n 1", "me@n1:2379"] {
            assert!(Place::parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_redirect_leads_to_another_server_or_another_page() {
        let here = Place::parse("n1:2379").expect("an address");
        let there = |location: &str| here.follow(location).map(|(place, path)| (place.to_string(), path));
        assert_eq!(there("http://n2:2379/v1/kv/a?limit=3"), Some(("n2:2379".into(), "/v1/kv/a?limit=3".into())));
        assert_eq!(there("/v1/kv/b"), Some(("n1:2379".into(), "/v1/kv/b".into())));
        for broken in ["", "v1/kv/b", "//n2/v1", "https://n2:2379/v1", "ftp://n2/"] {
            assert_eq!(there(broken), None, "{broken}");
        }
    }
}
