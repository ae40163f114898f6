-- Row security has policies and is not switched on (alter table … enable row level security).
select distinct n.nspname || '.' || c.relname
  from pg_policy o join pg_class c on c.oid = o.polrelid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s) and not c.relrowsecurity
