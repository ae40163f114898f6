-- One row each time a transformation's table was built.
create table datops.builds (
    build_id    bigint generated always as identity primary key,
    table_id    bigint not null references datops.tables,
    version     text not null,   -- of the declaration
    statement   text not null,
    rows        bigint not null,
    run_id      text,
    seconds     double precision not null,
    built_at    timestamptz not null default clock_timestamp()
);
create index builds_by_table on datops.builds (table_id, build_id desc);
