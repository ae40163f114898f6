-- A foreign table that others may read: row security does not hold there, and the other server sees our user,
-- not theirs.
select distinct n.nspname || '.' || c.relname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) x
 where n.nspname = any(%(schemas)s) and c.relkind = 'f' and x.grantee <> c.relowner and x.privilege_type = 'SELECT'
