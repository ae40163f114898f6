-- Streams whose changes are found by looking at the tables, not by reading the source's log.

alter table datops.streams
    alter column slot drop not null,
    alter column publication drop not null,
    add column capture text not null default 'log' check (capture in ('log', 'query')),
    add column looks bigint not null default 0;   -- how often the tables were looked at

alter table datops.stream_tables
    alter column oid drop not null,
    add column cursor text,               -- the column that the watermark is of
    add column watermark text,            -- the cursor's highest value at the last look, as the source prints it
    add column looked_at timestamptz,     -- begin of the look whose rows are in the mirror
    add column compared_at timestamptz,   -- begin of the last look that compared keys or rows
    add column rows_read bigint;          -- rows that came from the source in the last look
