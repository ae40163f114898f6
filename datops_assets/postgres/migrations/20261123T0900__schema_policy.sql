-- A person took the columns of a refused load as the table's own (`schema: freeze`); its unit is let in with them.

alter table datops.loads add column schema_accepted boolean not null default false;
