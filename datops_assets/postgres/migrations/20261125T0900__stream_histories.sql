-- History (SCD2) of the tables of a stream: how far each has been told from the change log.

create table datops.stream_histories (
    table_id    bigint primary key references datops.tables,
    told_lsn    pg_lsn not null,      -- all that was committed before it in the source's log is in the history
    copy_lsn    pg_lsn not null,      -- the copy of the table that the history goes on from
    waiting_lsn pg_lsn,               -- a later copy, kept aside until the stream has reached its place
    waiting_at  timestamptz,
    key         text[] not null,      -- the source's names
    prefix      text not null         -- what our columns begin with
);

-- A change says by number which columns it left out. Which columns it has is said here, from a place of the log on.
create table datops.stream_columns (
    table_id    bigint not null references datops.tables,
    commit_lsn  pg_lsn not null,
    seq         bigint not null,
    columns     text[] not null,
    primary key (table_id, commit_lsn, seq)
);
