-- How long bronze keeps what silver no longer needs: when rows of a load were taken out of bronze, and how many.
-- The entry stays as it is: what was read when, and with which outcome, is history.

alter table datops.loads
    add column pruned_at timestamptz,
    add column pruned_rows bigint not null default 0;
