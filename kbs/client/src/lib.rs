//! Client and protocol of the key broker; no database.
