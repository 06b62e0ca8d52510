//! What the guest platform is made of: launch plan, ACPI tables, initrd, kernel lock.
