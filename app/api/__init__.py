"""HTTP code that all resources share. The package of a resource, such as `app.patients`, contains its routes."""
