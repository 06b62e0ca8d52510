//! Tenants: the workload spec's own type, so that what a guest states and what an operator types are compared as one.

pub use coffer_spec::{NameError as TenantError, Tenant};
