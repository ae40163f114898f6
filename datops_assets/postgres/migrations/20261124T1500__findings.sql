-- Findings say whose they are and when something about them changed; what is usual says since when it was watched.

alter table datops.findings
    add column team           text not null default '',
    add column changed_at     timestamptz not null default now(),  -- when it came, grew worse, or was over
    add column told_severity  text;                                -- at `changed_at`
create index findings_by_change on datops.findings (changed_at);

alter table datops.baselines
    add column since    timestamptz not null default now(),
    add column seen_at  timestamptz not null default now();

create table datops.familiar (
    server      text not null,
    role        text not null,
    trait       text not null check (trait in ('client', 'application')),
    value       text not null,
    first_seen  timestamptz not null,
    primary key (server, role, trait, value)
);
