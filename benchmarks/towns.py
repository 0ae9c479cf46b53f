"""Where a register's patients live."""

from typing import NamedTuple

from benchmarks.names import split_names


class Town(NamedTuple):
    """A town with its surroundings."""

    population_thousands: int
    """The approximate population: more patients come from larger towns."""
    name: str
    region: str
    """The district or metropolitan municipality."""
    province: str
    postal_code: str
    latitude: float
    longitude: float
    country: str = "South Africa"


TOWNS = [
    Town(1870, "Soweto", "City of Johannesburg", "Gauteng", "1804", -26.2678, 27.8585),
    Town(1400, "Johannesburg", "City of Johannesburg", "Gauteng", "2001", -26.2041, 28.0473),
    Town(1050, "Pretoria", "City of Tshwane", "Gauteng", "0002", -25.7479, 28.2293),
    Town(950, "Durban", "eThekwini", "KwaZulu-Natal", "4001", -29.8587, 31.0218),
    Town(900, "Cape Town", "City of Cape Town", "Western Cape", "8001", -33.9249, 18.4241),
    Town(480, "Gqeberha", "Nelson Mandela Bay", "Eastern Cape", "6001", -33.9608, 25.6022),
    Town(460, "Tembisa", "Ekurhuleni", "Gauteng", "1632", -25.9964, 28.2268),
    Town(450, "Umlazi", "eThekwini", "KwaZulu-Natal", "4031", -29.9707, 30.8918),
    Town(430, "Mitchells Plain", "City of Cape Town", "Western Cape", "7785", -34.0500, 18.6183),
    Town(410, "Khayelitsha", "City of Cape Town", "Western Cape", "7784", -34.0403, 18.6778),
    Town(400, "Katlehong", "Ekurhuleni", "Gauteng", "1431", -26.3333, 28.1500),
    Town(380, "Mamelodi", "City of Tshwane", "Gauteng", "0122", -25.7202, 28.3671),
    Town(260, "Bloemfontein", "Mangaung", "Free State", "9301", -29.0852, 26.1596),
    Town(270, "East London", "Buffalo City", "Eastern Cape", "5201", -33.0153, 27.9116),
    Town(225, "Pietermaritzburg", "uMgungundlovu", "KwaZulu-Natal", "3201", -29.6006, 30.3794),
    Town(220, "Sebokeng", "Sedibeng", "Gauteng", "1983", -26.5833, 27.8333),
    Town(180, "Mthatha", "O.R. Tambo", "Eastern Cape", "5099", -31.5889, 28.7844),
    Town(155, "Stellenbosch", "Cape Winelands", "Western Cape", "7600", -33.9321, 18.8602),
    Town(150, "Rustenburg", "Bojanala Platinum", "North West", "0299", -25.6544, 27.2559),
    Town(145, "Newcastle", "Amajuba", "KwaZulu-Natal", "2940", -27.7580, 29.9318),
    Town(140, "George", "Garden Route", "Western Cape", "6529", -33.9630, 22.4617),
    Town(135, "Botshabelo", "Mangaung", "Free State", "9781", -29.2694, 26.7051),
    Town(130, "Polokwane", "Capricorn", "Limpopo", "0699", -23.9045, 29.4689),
    Town(125, "Welkom", "Lejweleputswa", "Free State", "9459", -27.9774, 26.7351),
    Town(110, "Paarl", "Cape Winelands", "Western Cape", "7646", -33.7342, 18.9621),
    Town(110, "eMalahleni", "Nkangala", "Mpumalanga", "1035", -25.8728, 29.2553),
    Town(100, "Kimberley", "Frances Baard", "Northern Cape", "8301", -28.7282, 24.7499),
    Town(90, "Potchefstroom", "Dr Kenneth Kaunda", "North West", "2531", -26.7145, 27.0970),
    Town(75, "Makhanda", "Sarah Baartman", "Eastern Cape", "6139", -33.3106, 26.5256),
    Town(70, "Komani", "Chris Hani", "Eastern Cape", "5319", -31.8976, 26.8753),
    Town(65, "Mbombela", "Ehlanzeni", "Mpumalanga", "1200", -25.4753, 30.9694),
    Town(60, "Thohoyandou", "Vhembe", "Limpopo", "0950", -22.9456, 30.4850),
    Town(57, "Upington", "ZF Mgcawu", "Northern Cape", "8801", -28.4478, 21.2561),
    Town(55, "Mahikeng", "Ngaka Modiri Molema", "North West", "2745", -25.8652, 25.6442),
    Town(50, "Worcester", "Cape Winelands", "Western Cape", "6850", -33.6465, 19.4485),
    Town(45, "Empangeni", "King Cetshwayo", "KwaZulu-Natal", "3880", -28.7619, 31.8933),
    Town(40, "Giyani", "Mopani", "Limpopo", "0826", -23.3025, 30.7187),
    Town(35, "Phuthaditjhaba", "Thabo Mofutsanyana", "Free State", "9866", -28.5240, 28.8158),
    Town(30, "Vryburg", "Dr Ruth Segomotsi Mompati", "North West", "8601", -26.9566, 24.7284),
    Town(25, "Knysna", "Garden Route", "Western Cape", "6571", -34.0363, 23.0471),
    Town(12, "Springbok", "Namakwa", "Northern Cape", "8240", -29.6643, 17.8865),
    Town(4, "Prince Albert", "Central Karoo", "Western Cape", "6930", -33.2253, 22.0300),
    Town(60, "Maseru", "Maseru", "Maseru", "100", -29.3151, 27.4869, "Lesotho"),
    Town(40, "Gaborone", "South-East", "South-East", "00000", -24.6282, 25.9231, "Botswana"),
    Town(40, "Maputo", "Maputo", "Cidade de Maputo", "1100", -25.9692, 32.5732, "Mozambique"),
    Town(30, "Windhoek", "Khomas", "Khomas", "10005", -22.5609, 17.0658, "Namibia"),
    Town(25, "Manzini", "Manzini", "Manzini", "M200", -26.4988, 31.3800, "Eswatini"),
]

STREET_NAMES = split_names(
    """Nelson Mandela, Church, Main, Voortrekker, Albert Luthuli, Steve Biko, Long, Station, Market, Hospital, School,
    Kerk, Jan Smuts, Oliver Tambo, Beach, Park, Mission, Chris Hani, River, Loop, Joe Slovo, Protea, Acacia, Aloe,
    Sisulu, Rose, Victoria, King, Umgeni, Helen Joseph"""
)
STREET_TYPES = ("Street", "Road", "Avenue", "Drive", "Straat", "Close")
