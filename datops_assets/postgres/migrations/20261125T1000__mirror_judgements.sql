-- Silver of a mirror: a table of bronze that is updated in place is judged by the keys that changed.

create table datops.mirror_judgements (
    table_id  bigint primary key references datops.tables,
    load_id   bigint not null references datops.loads,  -- stands for the mirror as it was judged whole last
    place     text not null,                            -- how far its changes were judged since, in the stream's words
    last_row  bigint not null                           -- the highest _row that was given
);
