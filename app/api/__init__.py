"""HTTP code that all resources share. The routes of each resource are in its own package, such as `app.patients`."""
