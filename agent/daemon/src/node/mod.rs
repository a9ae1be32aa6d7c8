//! The node around the pods: its devices, its routes to other nodes' pods, its forwarding. Pods and policy may not enter.

mod forwarding;
mod routes;
mod services;

pub use forwarding::forward;
pub use routes::{DirectRoutes, RoutingOptions, remove_routes};
pub use services::DatapathServices;
