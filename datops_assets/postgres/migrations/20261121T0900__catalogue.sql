-- The catalogue: what was loaded, judged, set aside and measured.
-- bigint keys inside, ULIDs for whoever refers to a row from outside.

create schema if not exists bronze;
create schema if not exists silver;
create schema if not exists gold;
create schema if not exists quarantine;

create table datops.tables (
    table_id    bigint generated always as identity primary key,
    source      text not null,
    name        text not null,
    created_at  timestamptz not null default now(),
    unique (source, name)
);

-- Names as delivered, and the bronze column each one became. The second column of
-- a file that is called "a" is (delivered 'a', occurrence 2).
create table datops.columns (
    table_id       bigint not null references datops.tables,
    delivered      text not null,
    occurrence     integer not null default 1,
    name           text not null,
    type           text not null,
    position       integer not null,
    in_more        boolean not null default false,
    first_load_id  bigint not null,
    primary key (table_id, delivered, occurrence),
    unique (table_id, name)
);

create table datops.loads (
    load_id          bigint generated always as identity primary key,
    ulid             text not null unique,
    table_id         bigint not null references datops.tables,
    path             text not null,
    content_hash     text,
    fingerprint      text,
    reading          text,
    size_bytes       bigint,
    format           text not null,
    state            text not null check (state in
                       ('loading', 'loaded', 'staged', 'failed', 'interrupted', 'refused', 'superseded', 'undone')),
    batch            text not null,
    run_id           text,
    partition_key    text,
    rows             bigint,
    damaged_rows     bigint not null default 0,
    header           jsonb,
    differences      jsonb,
    same_content_as  bigint references datops.loads,
    superseded_by    bigint references datops.loads,
    delivery         bigint references datops.loads,  -- of a table delivered whole: the first load of its delivery
    error            text,
    reload_requested boolean not null default false,  -- a person asked for the file again; the entry holds it back no more
    started_at       timestamptz not null default clock_timestamp(),
    finished_at      timestamptz
);
create unique index loads_identity on datops.loads (table_id, path, content_hash, state) where state in ('loaded', 'staged');
create index loads_by_path on datops.loads (table_id, path, load_id desc);
create index loads_by_hash on datops.loads (table_id, content_hash);

create table datops.contracts (
    contract_id  bigint generated always as identity primary key,
    table_id     bigint not null references datops.tables,
    version      text not null,
    document     jsonb not null,
    first_seen   timestamptz not null default now(),
    unique (table_id, version)
);

create table datops.judgements (
    judgement_id      bigint generated always as identity primary key,
    ulid              text not null unique,
    table_id          bigint not null references datops.tables,
    contract_id       bigint not null references datops.contracts,
    kind              text not null check (kind in ('load', 'partition', 'replay', 'rebuild')),
    state             text not null check (state in ('judged', 'blocked')),
    rows_judged       bigint not null default 0,
    rows_passed       bigint not null default 0,
    rows_quarantined  bigint not null default 0,
    rows_inserted     bigint not null default 0,
    rows_updated      bigint not null default 0,
    rows_deleted      bigint not null default 0,
    rows_total        bigint not null default 0,
    score             double precision,
    run_id            text,
    started_at        timestamptz not null,
    finished_at       timestamptz not null default clock_timestamp()
);

-- The loads that silver holds now, and by which contract each was judged.
create table datops.judged_loads (
    table_id      bigint not null references datops.tables,
    load_id       bigint not null references datops.loads,
    judgement_id  bigint not null references datops.judgements,
    contract_id   bigint not null references datops.contracts,
    primary key (table_id, load_id)
);

create table datops.check_results (
    judgement_id  bigint not null references datops.judgements,
    check_name    text not null,
    column_name   text,
    severity      text not null check (severity in ('warn', 'error', 'block')),
    rows_judged   bigint not null,
    rows_failed   bigint not null,
    passed        boolean not null,
    detail        jsonb,
    primary key (judgement_id, check_name)
);

create table datops.metrics (
    table_id      bigint not null references datops.tables,
    judgement_id  bigint references datops.judgements,
    metric        text not null,
    value         double precision not null,
    at            timestamptz not null default clock_timestamp()
);
create index metrics_over_time on datops.metrics (table_id, metric, at);

-- Records a person decided to leave out for good; a rebuild leaves them out too.
create table datops.dropped_records (
    table_id    bigint not null references datops.tables,
    load_id     bigint not null references datops.loads,
    row         bigint not null,
    reason      text not null,
    dropped_at  timestamptz not null default now(),
    primary key (table_id, load_id, row)
);
