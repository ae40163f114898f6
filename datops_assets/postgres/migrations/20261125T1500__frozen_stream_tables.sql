-- Tables of a stream under `schema: freeze`: their columns changed, and their mirror waits for a person.

alter table datops.stream_tables
    add column frozen jsonb,                             -- how the columns differ; null: the mirror follows
    add column accepted boolean not null default false;  -- a person took them: the next drain copies the table anew
