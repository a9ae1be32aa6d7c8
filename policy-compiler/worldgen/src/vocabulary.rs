//! The words of small worlds. There are few of them on purpose: names, labels, ports and prefixes then meet often, and meeting
//! is where evaluators differ.

/// Pod label keys. `host` and `world` are also the names of reserved labels, which a key without a prefix reaches too.
pub(crate) const LABEL_KEYS: [&str; 4] = ["app", "tier", "role", "example.com/part"];
/// Pod label keys that collide with other sources of labels.
pub(crate) const ODD_LABEL_KEYS: [&str; 3] = ["host", "world", "zone"];
/// Namespace label keys.
pub(crate) const NAMESPACE_KEYS: [&str; 2] = ["team", "env"];
/// Values of namespace labels.
pub(crate) const NAMESPACE_VALUES: [&str; 2] = ["red", "blue"];
/// Node label keys.
pub(crate) const NODE_KEYS: [&str; 2] = ["zone", "example.com/rack"];
/// Values of node labels.
pub(crate) const NODE_VALUES: [&str; 2] = ["east", "west"];
/// Service accounts.
pub(crate) const SERVICE_ACCOUNTS: [&str; 3] = ["default", "reader", "writer"];
/// Names of container ports.
pub(crate) const PORT_NAMES: [&str; 3] = ["http", "dns", "metrics"];
/// Ports, mostly neighbours of each other and of the ends of the number space.
pub(crate) const PORTS: [u16; 14] = [
    80, 443, 8080, 53, 81, 79, 1, 65535, 1023, 1024, 8191, 8192, 65534, 9090,
];
/// ICMP types of both families that policies and queries use.
pub(crate) const ICMP_TYPES: [u16; 6] = [8, 0, 3, 128, 129, 255];
/// Names of ICMP types as policies may write them, with their family.
pub(crate) const ICMP_NAMES: [(&str, &str); 4] = [
    ("IPv4", "EchoRequest"),
    ("IPv6", "EchoRequest"),
    ("IPv4", "DestinationUnreachable"),
    ("IPv6", "EchoReply"),
];
/// Prefixes: nested ones, both whole spaces, single addresses, ones over pods, nodes and API servers.
pub(crate) const PREFIXES: [&str; 20] = [
    "203.0.113.0/24",
    "2001:db8::/32",
    "0.0.0.0/0",
    "::/0",
    "203.0.113.0/25",
    "203.0.113.128/25",
    "203.0.113.64/26",
    "203.0.113.7/32",
    "198.51.100.0/24",
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.1.0/25",
    "192.168.0.0/24",
    "192.168.0.10/32",
    "2001:db8:1::/48",
    "2001:db8:1:2::/64",
    "2001:db8:1:2::7/128",
    "fd00:10::/32",
    "fd00:10:0:1::/64",
    "fd00:1::/64",
];
/// Outside addresses of both families.
pub(crate) const OUTSIDE: [&str; 10] = [
    "203.0.113.7",
    "2001:db8:1:2::7",
    "203.0.113.80",
    "203.0.113.200",
    "198.51.100.1",
    "8.8.8.8",
    "2001:db8:1:2::8",
    "2001:db8:1::1",
    "2001:db8::1",
    "2606:4700::1111",
];
/// Addresses that learned names and queries share.
pub(crate) const NAMES: [&str; 6] = [
    "www.example.com",
    "example.com",
    "api.example.com",
    "a.b.example.com",
    "www.example.org",
    "localhost",
];
/// Patterns over them.
pub(crate) const PATTERNS: [&str; 8] = [
    "*.example.com",
    "**.example.com",
    "*",
    "www.example.*",
    "*.b.example.com",
    "WWW.Example.COM.",
    "a*.example.com",
    "*.*.example.com",
];
/// HTTP paths, of requests.
pub(crate) const PATHS: [&str; 4] = ["/", "/public", "/public/a", "/admin"];
/// HTTP methods.
pub(crate) const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
