//! Which addresses a webhook may go to.
//!
//! Whoever may create an endpoint chooses a URL that this process then calls, from inside the network. So names are
//! resolved here, internal addresses are refused, and the connection is made to the very addresses that were checked: a name
//! that resolves to something else a moment later (DNS rebinding) gains nothing.

use std::error::Error;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Internal addresses and hosts that webhooks may go to all the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList {
    networks: Vec<IpNet>,
    hosts: Vec<String>,
}

/// An entry of an [`AllowList`] that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` is neither a network such as 10.1.0.0/16, nor an address, nor a host name")]
pub struct AllowListError {
    /// The entry.
    pub entry: String,
}

impl AllowList {
    /// Takes entries: a network (`10.1.0.0/16`, `fd00::/8`), an address (`127.0.0.1`), or a host name, which may then
    /// resolve to any address (`hooks.internal`).
    ///
    /// # Errors
    /// The entry that is none of these.
    pub fn parse(entries: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, AllowListError> {
        let mut list = Self::default();
        for entry in entries {
            let entry = entry.as_ref().trim();
            let wrong = || AllowListError { entry: entry.to_owned() };
            if entry.contains('/') {
                list.networks.push(entry.parse().map_err(|_| wrong())?);
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                list.networks.push(address.into());
            } else {
                match Host::parse(entry) {
                    Ok(Host::Domain(name)) => list.hosts.push(name),
                    Ok(_) | Err(_) => return Err(wrong()),
                }
            }
        }
        Ok(list)
    }

    fn allows_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    fn permits(&self, address: IpAddr) -> bool {
        !is_internal(address) || self.allows_address(address)
    }

    /// Checks a URL as far as it can be without resolving its host.
    pub(crate) fn check(&self, url: &Url) -> Result<(), ForbiddenAddress> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.permits(address) { Ok(()) } else { Err(ForbiddenAddress::address(address)) }
    }
}

/// IPv4 networks that are not of the public internet. The list is our own: no library has all of them (IANA's special-purpose registry), multicast and reserved ones.
const INTERNAL_V4: [Ipv4Net; 15] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 88, 99, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// IPv6 networks inside the global range 2000::/3 that are not of the public internet, or lead to IPv4 addresses.
const INTERNAL_V6: [Ipv6Net; 4] = [
    // Protocol assignments, Teredo among them.
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4.
    Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// NAT64: the last 32 bits are the IPv4 address that it leads to.
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
/// All IPv6 addresses that are of the public internet.
const GLOBAL_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

fn is_internal(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => INTERNAL_V4.iter().any(|network| network.contains(&v4)),
        IpAddr::V6(v6) if NAT64.contains(&v6) => {
            let [.., a, b, c, d] = v6.octets();
            is_internal(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        IpAddr::V6(v6) => !GLOBAL_V6.contains(&v6) || INTERNAL_V6.iter().any(|network| network.contains(&v6)),
    }
}

/// An address that webhooks may not go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is an internal address, which webhooks may not go to unless the notifier is configured to allow it"
)]
pub(crate) struct ForbiddenAddress(String);

impl ForbiddenAddress {
    fn address(address: IpAddr) -> Self {
        Self(address.to_string())
    }

    /// Whether this refusal is the cause of an error.
    pub(crate) fn among_causes<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refused) = error.downcast_ref::<Self>() {
                return Some(refused);
            }
            next = error.source();
        }
        None
    }
}

type LookedUp = Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;

/// Resolves names to those of their addresses that are permitted.
pub(crate) struct CheckedNames {
    allow: Arc<AllowList>,
    look_up: Arc<dyn Fn(String) -> LookedUp + Send + Sync>,
}

impl CheckedNames {
    /// Asks the system's resolver.
    pub(crate) fn new(allow: Arc<AllowList>) -> Self {
        Self::with(allow, |host| {
            Box::pin(async move {
                Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
            })
        })
    }

    fn with(allow: Arc<AllowList>, look_up: impl Fn(String) -> LookedUp + Send + Sync + 'static) -> Self {
        Self { allow, look_up: Arc::new(look_up) }
    }
}

impl Resolve for CheckedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = Arc::clone(&self.allow);
        let host = name.as_str().to_owned();
        let found = (self.look_up)(host.clone());
        Box::pin(async move {
            let found = found.await?;
            let any = allow.allows_host(&host);
            let permitted: Vec<SocketAddr> = found
                .iter()
                .filter(|address| any || allow.permits(**address))
                .map(|address| SocketAddr::new(*address, 0))
                .collect();
            match (permitted.is_empty(), found.first()) {
                (true, Some(first)) => {
                    Err(ForbiddenAddress(format!("`{host}` resolves to {first}, which")).into())
                }
                (true, None) => Err(std::io::Error::other(format!("`{host}` has no address")).into()),
                (false, _) => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn internal_addresses_are_told_from_public_ones() {
        let internal = [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "fec0::1",
            "100::1",
        ];
        for address in internal {
            assert!(is_internal(address.parse().unwrap()), "{address} should be internal");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "169.253.0.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ];
        for address in public {
            assert!(!is_internal(address.parse().unwrap()), "{address} should be public");
        }
    }

    #[test]
    fn urls_that_name_an_internal_address_in_any_spelling_are_refused() {
        let none = AllowList::default();
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]:80/",
            "http://169.254.169.254/latest",
        ] {
            assert!(none.check(&Url::parse(url).unwrap()).is_err(), "{url} should be refused");
        }
        assert!(none.check(&Url::parse("http://1.1.1.1/").unwrap()).is_ok());
    }

    #[test]
    fn the_allow_list_takes_networks_addresses_and_hosts() {
        let list = AllowList::parse(["10.1.0.0/16", "::1", "hooks.Internal", "0.0.0.0/0"]).unwrap();
        assert!(list.allows_host("HOOKS.internal."));
        assert!(!list.allows_host("other.internal"));
        assert!(list.permits("::1".parse().unwrap()));
        assert!(!list.permits("fd00::1".parse().unwrap()));
        let list = AllowList::parse(["10.1.0.0/16"]).unwrap();
        for (address, permitted) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("10.2.0.1", false), ("127.0.0.1", false)]
        {
            assert_eq!(list.permits(address.parse().unwrap()), permitted, "{address}");
        }
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "", "a b", "http://x"] {
            assert!(AllowList::parse([wrong]).unwrap_err().to_string().contains(wrong), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_checked_again_for_each_connection() {
        galerna_tls::install_default_provider();
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        // Whatever the name resolved to when the endpoint was stored: what counts is what it resolves to now.
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let names = CheckedNames::with(Arc::new(AllowList::default()), move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]) })
        });
        let client = reqwest::Client::builder().no_proxy().dns_resolver(Arc::new(names)).build().unwrap();
        let error = client.get(format!("http://rebound.example:{port}/")).send().await.unwrap_err();
        let refused = ForbiddenAddress::among_causes(&error).expect("refused, and said so").to_string();
        assert!(refused.contains("rebound.example"), "{refused}");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        // Nobody connected.
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(100), server.accept()).await.is_err(),
            "no connection may be made"
        );
    }

    #[tokio::test]
    async fn of_several_addresses_only_the_permitted_ones_are_connected_to() {
        let names = CheckedNames::with(Arc::new(AllowList::default()), |_| {
            Box::pin(async { Ok(vec!["10.0.0.1".parse().unwrap(), "1.1.1.1".parse().unwrap()]) })
        });
        let found: Vec<_> = names.resolve("mixed.example".parse().unwrap()).await.unwrap().collect();
        assert_eq!(found, ["1.1.1.1:0".parse().unwrap()]);
    }
}
