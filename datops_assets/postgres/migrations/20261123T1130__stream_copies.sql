-- A table of a stream may be copied anew on its own: its mirror is then ahead of the log until the stream gets there.

alter table datops.stream_tables
    add column copied_lsn pg_lsn,   -- the mirror holds all that was committed before; null: the stream's snapshot
    add column file oid;            -- where the source kept the rows then: another one means they were written anew

comment on column datops.stream_tables.columns is
    '[{"name", "type", "key", "binary", "number"}] in the source''s order, as the mirror has them';
