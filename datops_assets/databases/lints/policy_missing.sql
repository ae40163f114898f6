-- Row security is on and has no policy: nobody but the owner sees a row (create policy …).
select n.nspname || '.' || c.relname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s) and c.relrowsecurity
   and not exists (select from pg_policy o where o.polrelid = c.oid)
