-- Something that everybody on the server may read or change (revoke … from public).
select distinct n.nspname || '.' || c.relname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) x
 where n.nspname = any(%(schemas)s) and x.grantee = 0
