-- Databases under watch: what was done to sessions, what was found, and what is usual for a role.

create table datops.interventions (
    intervention_id  bigint generated always as identity primary key,
    done_at          timestamptz not null default clock_timestamp(),
    server           text not null,
    database         text,
    role             text not null,
    pid              integer not null,
    backend_start    timestamptz not null,
    action           text not null check (action in ('cancel', 'terminate')),
    reason           text not null,
    reached          boolean not null       -- false: the session was gone by then
);
create index interventions_by_time on datops.interventions (done_at);

create table datops.findings (
    finding_id   bigint generated always as identity primary key,
    server       text not null,
    kind         text not null,
    subject      text not null,
    severity     text not null check (severity in ('info', 'warning', 'critical')),
    summary      text not null,
    evidence     jsonb not null,
    first_seen   timestamptz not null,
    last_seen    timestamptz not null,
    resolved_at  timestamptz
);
create unique index findings_open on datops.findings (server, kind, subject) where resolved_at is null;

create table datops.baselines (
    server     text not null,
    subject    text not null,
    measure    text not null,
    samples    bigint not null,
    mean       double precision not null,
    deviation  double precision not null,   -- mean distance from the mean
    primary key (server, subject, measure)
);

create table datops.watched (
    server    text primary key,
    memory    jsonb not null,               -- the last sample, to be compared with the next
    taken_at  timestamptz not null
);
