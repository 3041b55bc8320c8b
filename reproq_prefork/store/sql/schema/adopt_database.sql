-- By the rights of the schema's owner, for whoever may register workers: see the migration `copies`.
select reproq_adopt() as adopted
