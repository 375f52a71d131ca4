"""Everything that is known of a project on one page, `report.html`, for the person whose pictures they are."""
