-- A policy that lets everybody see or write every row.
select n.nspname || '.' || c.relname || ' ' || o.polname
  from pg_policy o join pg_class c on c.oid = o.polrelid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s) and o.polpermissive and 0 = any(o.polroles)
   and 'true' in (pg_get_expr(o.polqual, o.polrelid), pg_get_expr(o.polwithcheck, o.polrelid))
