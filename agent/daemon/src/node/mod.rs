//! The node around the pods: its devices, the way to other nodes' pods, its forwarding. Pods and policy may not enter.

mod forwarding;
mod overlay;
mod routes;
mod routing;
mod services;

pub use forwarding::forward;
pub use overlay::DEVICE as OVERLAY_DEVICE;
pub use routes::remove_routes;
pub use routing::{NodeRouting, RoutingOptions};
pub use services::DatapathServices;

#[allow(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn text(error: impl ToString) -> String {
    error.to_string()
}
