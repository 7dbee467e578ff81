"""Words of the phantom reports, as data: templates with slots, and the text queries, which share no template with them.

Slots: {side} left, right or bilateral; {Side} the same with a capital; {size} the severity; {zone} upper, mid or lower.
"""

SEVERITY = {
    1: ("small", "mild", "minimal", "subtle"),
    2: ("moderate", "moderate-sized", "definite"),
    3: ("large", "severe", "marked", "extensive"),
}

FINDINGS: dict[str, tuple[str, ...]] = {
    "atelectasis": (
        "There is {size} linear atelectasis at the {side} lung base.",
        "Plate-like opacities at the {side} base are in keeping with subsegmental atelectasis.",
        "{Side} basilar bands of {size} discoid atelectasis, with the hemidiaphragm drawn up.",
        "Streaky {side} lower lung opacities most likely reflect {size} atelectasis.",
        "Low lung volume on the {side} with {size} bibasilar type volume loss.",
        "Linear densities in the {side} base suggest atelectatic change.",
        "There is volume loss at the {side} base with elevation of the {side} hemidiaphragm.",
    ),
    "cardiomegaly": (
        "The cardiac silhouette is enlarged, to a {size} degree.",
        "There is {size} cardiomegaly.",
        "Heart size is increased, with a cardiothoracic ratio above one half.",
        "The heart is {size} in its enlargement.",
        "{Size} enlargement of the heart is again seen.",
        "The cardiomediastinal contour shows an enlarged heart.",
        "Cardiac enlargement is present, {size} in degree.",
    ),
    "edema": (
        "There is {size} interstitial pulmonary edema.",
        "Diffuse interstitial markings with septal lines, consistent with {size} edema.",
        "Kerley B lines and perihilar haze indicate {size} vascular congestion and edema.",
        "Thickened interlobular septa are seen in both lungs, in keeping with fluid overload.",
        "Bilateral perihilar opacities with indistinct vessels, compatible with {size} pulmonary edema.",
        "Findings of {size} cardiogenic edema are present.",
    ),
    "fracture": (
        "There are displaced fractures of the {side} {zone} ribs.",
        "{Side} sided rib fractures are seen in the {zone} thorax, with displaced fragments.",
        "Cortical step-off of adjacent {side} ribs, consistent with acute fracture.",
        "Discontinuity of {zone} {side} ribs represents fractures with a {size} extrapleural haematoma.",
        "The {side} {zone} ribs are broken and offset.",
        "Acute appearing {side} rib fracture deformities are noted.",
    ),
    "pleural effusion": (
        "There is a {size} {side} pleural effusion.",
        "Blunting of the {side} costophrenic angle is consistent with a {size} effusion.",
        "{Side} pleural fluid with a meniscus, {size} in amount.",
        "Layering fluid obscures the {side} hemidiaphragm.",
        "A {size} amount of {side} pleural fluid is present.",
        "{Size} {side} effusion is again demonstrated.",
    ),
    "pneumonia": (
        "There is a {size} consolidation in the {side} {zone} lung, concerning for pneumonia.",
        "Patchy airspace opacity in the {side} {zone} zone with air bronchograms.",
        "{Side} {zone} lung airspace disease is worrisome for infection.",
        "A {size} focal opacity in the {side} {zone} lung likely represents pneumonia.",
        "Confluent {side} {zone} zone opacity is compatible with lobar pneumonia.",
        "Ill-defined consolidation is seen within the {side} {zone} lung.",
    ),
    "pneumothorax": (
        "There is a {size} {side} pneumothorax.",
        "A visceral pleural line is seen on the {side}, with absent lung markings beyond it.",
        "{Size} {side} apical pneumothorax without mediastinal shift.",
        "Air in the {side} pleural space has partly collapsed the lung.",
        "{Side} pneumothorax, {size} in size.",
        "The {side} lung edge is separated from the chest wall by pleural air.",
    ),
}

IMPRESSIONS: dict[str, tuple[str, ...]] = {
    "atelectasis": ("{Size} {side} basilar atelectasis.", "{Side} base atelectasis.", "{Side} lower lobe volume loss."),
    "cardiomegaly": ("{Size} cardiomegaly.", "Enlarged heart.", "Cardiac enlargement, {size}."),
    "edema": ("{Size} pulmonary edema.", "Congestive changes with interstitial edema.", "Fluid overload."),
    "fracture": ("{Side} rib fractures.", "Displaced {side} {zone} rib fractures.", "Acute {side} rib fracture."),
    "pleural effusion": ("{Size} {side} pleural effusion.", "{Side} effusion.", "{Side} pleural fluid, {size}."),
    "pneumonia": ("{Side} {zone} zone pneumonia.", "{Size} {side} airspace disease.", "{Side} lung consolidation."),
    "pneumothorax": ("{Size} {side} pneumothorax.", "{Side} pneumothorax.", "{Side} pleural air, {size}."),
}

NEGATIONS: dict[str, tuple[str, ...]] = {
    "atelectasis": ("No atelectasis.", "No volume loss is seen."),
    "cardiomegaly": (
        "The heart size is normal.",
        "Cardiac silhouette is within normal limits.",
        "The heart is not enlarged.",
    ),
    "edema": ("No pulmonary edema.", "The pulmonary vasculature is normal.", "There is no vascular congestion."),
    "fracture": ("No displaced rib fracture is seen.", "The visualised ribs are intact."),
    "pleural effusion": (
        "No pleural effusion.",
        "The costophrenic angles are sharp.",
        "There is no pleural fluid on either side.",
    ),
    "pneumonia": (
        "No focal consolidation.",
        "There is no airspace disease.",
        "No evidence of pneumonia.",
    ),
    "pneumothorax": ("No pneumothorax.", "There is no pneumothorax on either side."),
}

NORMAL_FINDINGS = (
    "The lungs are clear.",
    "Lungs are well expanded and clear, and the chest is normal.",
    "No acute cardiopulmonary process is seen.",
    "Heart, lungs and pleura are unremarkable.",
    "Normal appearance of the chest.",
)

NORMAL_IMPRESSIONS = (
    "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.",
    "No acute disease.",
    "Unremarkable examination of the chest.",
)

UNRELATED = (
    "Mild degenerative changes of the thoracic spine are noted.",
    "The trachea is midline.",
    "The mediastinal contours are stable.",
    "Soft tissues are unremarkable.",
    "Calcification of the aortic knob is unchanged.",
    "The upper abdomen shows a normal bowel gas pattern.",
    "There is mild scoliosis, convex to the right.",
)

DEVICE = (
    "Lines and tubes are in standard position.",
    "Overlying monitoring leads are noted.",
    "A support device projects over the chest, as before.",
)

INDICATIONS = ("Shortness of breath.", "Chest pain.", "Cough and fever.", "Fall.", "Preoperative.", "Follow-up.")

QUERIES: dict[str, tuple[str, ...]] = {
    "atelectasis": (
        "subsegmental collapse of the lung bases",
        "bandlike basal atelectasis in a postoperative patient",
        "plate atelectasis",
        "collapsed lung tissue above a high diaphragm",
        "discoid basal opacity from incomplete expansion",
    ),
    "cardiomegaly": (
        "the heart appears too big",
        "cardiomegaly on chest film",
        "large cardiac shadow occupying over half of the thoracic width",
        "globally enlarged cardiac contour",
        "dilated heart",
    ),
    "edema": (
        "interstitial edema with septal thickening",
        "pulmonary venous congestion, wet lungs",
        "lungs show edema from heart failure",
        "Kerley lines at the periphery",
        "hazy hila due to alveolar and interstitial fluid",
    ),
    "fracture": (
        "broken ribs after trauma",
        "fracture of several neighbouring ribs",
        "rib cage injury with offset bone ends",
        "step deformity in a rib",
        "displaced costal fracture",
    ),
    "pleural effusion": (
        "fluid collection in the pleural cavity",
        "meniscus sign from effusion",
        "pleural effusion hiding the lung base",
        "obliterated costophrenic sulcus",
        "hydrothorax",
    ),
    "pneumonia": (
        "lobar infiltrate with bronchograms",
        "infectious consolidation of the lung",
        "pneumonia in one lobe",
        "dense patch of infected airspaces",
        "focal pneumonic infiltrate",
    ),
    "pneumothorax": (
        "collapsed lung with air around it",
        "pneumothorax with visible pleural edge",
        "free air between lung and ribs",
        "thin white line parallel to the thoracic wall, no vessels outside",
        "apical air collection in the pleura",
    ),
    "no finding": (
        "normal study without disease",
        "healthy chest, nothing abnormal",
        "clear lungs and a heart of usual size",
        "negative radiograph",
        "there is nothing to report",
    ),
}
