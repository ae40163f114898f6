-- An extension in the schema public: its functions stand in the way of everybody's names (alter extension … set
-- schema …).
select e.extname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where n.nspname = 'public' and cardinality(%(schemas)s::text[]) >= 0
