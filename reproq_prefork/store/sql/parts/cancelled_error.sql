-- The error entry of a run that becomes CANCELLED.
jsonb_build_object('kind', 'cancelled', 'message', 'the task was cancelled', 'ended_at', now())
