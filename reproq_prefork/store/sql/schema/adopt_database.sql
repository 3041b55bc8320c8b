-- Runs with the privileges of the schema's owner. Every login that may register workers may call it: see the
-- migration `copies`.
select reproq_adopt() as adopted
