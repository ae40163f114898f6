-- Rows come to a partitioned table and leave it with its partitions, of which the log says nothing.

alter table datops.stream_tables
    add column partitions jsonb;    -- {"oid": file} of the tables below it when the mirror was made; null: nobody looked
