-- What a long reading brought before it was cut off, so that the next run goes on and does not begin again.
-- Gone with the load that all of it becomes.
create table datops.kept_portions (
    table_id  bigint not null references datops.tables,
    part      integer not null,
    question  text not null,      -- a hash of what is asked: another declaration is another reading
    place     text not null,      -- where the reading goes on after it, in the source's own words
    lines     bytea not null,
    kept_at   timestamptz not null default clock_timestamp(),
    primary key (table_id, part)
);
alter table datops.kept_portions alter column lines set storage external;
