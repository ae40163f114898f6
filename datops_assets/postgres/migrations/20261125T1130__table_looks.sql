-- Tables of one stream are looked at one after the other: whoever reads what changed asks the table, not the stream.

alter table datops.stream_tables
    add column look bigint;   -- the last look whose changes are in the log
