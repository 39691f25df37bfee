"""What a run would do, known before anything is built: ``flambe plan``."""
