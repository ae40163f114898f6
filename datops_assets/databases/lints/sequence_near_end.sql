-- A sequence that has used more than 80 of 100 of its numbers: inserts will fail (alter … type bigint).
select schemaname || '.' || sequencename from pg_sequences
 where schemaname = any(%(schemas)s) and not cycle and last_value > 0.8 * max_value
