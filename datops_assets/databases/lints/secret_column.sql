-- A column named like a secret that others than the owner may read: grant the other columns, or keep it
-- elsewhere.
select n.nspname || '.' || c.relname || ' ' || a.attname
  from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s) and c.relkind in ('r', 'p', 'v', 'm', 'f') and a.attnum > 0 and not a.attisdropped
   and a.attname ~* '(^|_)(password|passwd|pwd|secret|token|api_?key|private_?key|cvv|card_?number|ssn|iban)($|_)'
   and (exists (select from aclexplode(c.relacl) x where x.grantee <> c.relowner and x.privilege_type = 'SELECT')
        or exists (select from aclexplode(a.attacl) x where x.grantee <> c.relowner and x.privilege_type = 'SELECT'))
