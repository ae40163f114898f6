-- A constraint that old rows were never held against (alter table … validate constraint …).
select n.nspname || '.' || c.relname || ' ' || k.conname
  from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s) and not k.convalidated
