//! The tables of the database of boxes, and how those of earlier releases become them.

use rusqlite::Connection;

/// Of what [`STEPS`] make.
pub(super) const VERSION: i64 = 5;

/// From each version to the next; an empty database is of version 0.
pub(super) const STEPS: [&str; 5] = [
    "create table boxes (
        id text primary key, name text not null unique, image text not null, state text not null,
        supervisor_pid integer, vmm_pid integer,
        created integer not null, started integer, finished integer,
        exit_code integer, error text, options text not null, timings text not null
    ) strict;",
    "alter table boxes add column reason text;
    create table removed (
        id text primary key, name text not null, image text not null, state text not null,
        supervisor_pid integer, vmm_pid integer,
        created integer not null, started integer, finished integer,
        exit_code integer, error text, options text not null, timings text not null, reason text
    ) strict;",
    "alter table boxes add column restarts integer not null default 0;
    alter table boxes add column by_hand integer not null default 0;
    alter table removed add column restarts integer not null default 0;
    alter table removed add column by_hand integer not null default 0;",
    "alter table boxes add column sender text;
    alter table removed add column sender text;",
    "create table networks (name text primary key, record text not null) strict;",
];

/// Takes the steps that the database lacks, all of them or none.
pub(super) fn bring_up_to_date(db: &Connection) -> rusqlite::Result<()> {
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let steps = STEPS.iter().skip(usize::try_from(found).unwrap_or(0)).copied().collect::<Vec<_>>().concat();
    db.execute_batch(&format!("begin immediate; {steps} pragma user_version = {VERSION}; commit;"))?;
    Ok(())
}
