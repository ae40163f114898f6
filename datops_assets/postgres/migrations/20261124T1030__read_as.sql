-- How a file was read where its declaration left that to be found out: encoding, delimiter, and by what.
alter table datops.loads add column read_as jsonb;
