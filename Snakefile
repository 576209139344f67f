# The workflow is in workflow/; this file lets plain `snakemake` work from here.
include: "workflow/Snakefile"


workflow.default_target = "all"  # an included file's first rule is not the default by itself
