//! The cluster's wishes as packet rules and names: Services and cluster DNS.
